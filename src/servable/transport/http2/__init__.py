"""HTTP/2 in both roles: frames, HPACK, streams, flow control; ``connection`` serves, ``client`` asks."""
