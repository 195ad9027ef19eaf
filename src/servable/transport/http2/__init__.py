"""HTTP/2: frames, HPACK, streams and connections, in both roles."""
