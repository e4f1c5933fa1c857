"""Effects other than storage behind the ports."""
