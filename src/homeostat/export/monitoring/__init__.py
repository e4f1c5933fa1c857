"""What Prometheus, Alertmanager and Grafana need to watch a project: files made from its policy."""
