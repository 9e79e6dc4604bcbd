"""SWIM ("See What I Mean"): the attention of a named noun falls on that object. See the README at the top."""
