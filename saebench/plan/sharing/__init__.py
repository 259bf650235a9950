"""From the suite's one budget to the tokens that each contender may train on."""
