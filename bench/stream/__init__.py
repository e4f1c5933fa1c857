"""Messages a second through a stream, beside a loop that only moves them."""
