"""Sample tasks: real work on real input, written as a user of jobcast would."""
