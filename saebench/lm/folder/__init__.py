"""What the files of a model folder say: weights, config and tokenizer, and whether all of them find their place."""
