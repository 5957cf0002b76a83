"""Sample tasks, which do real work on real input and use jobcast as an application would."""
