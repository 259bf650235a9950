"""How contenders are compared: on which scale, at which price, with which variances, and what is concluded."""
