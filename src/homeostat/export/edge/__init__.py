"""The edge: one folder that answers without a network, in a browser, in Node and in Python."""
