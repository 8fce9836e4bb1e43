"""`trygon load`: requests on schedule from processes of its own, and what came of them."""
