"""The data plane: it answers while the control plane is down."""
