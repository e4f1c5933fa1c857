class MlflowTracker:
    def __init__(self, uri, artifacts):
        pass
