"""Examples of Trygon, one idea a file; `docs/examples.md` lists them."""
