"""MEASUREMENT FROM OUTSIDE: load, verified answers and honest times, through the socket alone."""
