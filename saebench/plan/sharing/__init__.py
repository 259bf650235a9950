"""One shared budget to an allotment of tokens for every contender."""
