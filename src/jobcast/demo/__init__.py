"""``jobcast demo``: the whole system on one machine, and its site. Needs ``jobcast[demo]``."""
