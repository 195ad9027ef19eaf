"""What airspeed velocity measures at every commit: the cost of a request's codecs, and what a process takes."""
