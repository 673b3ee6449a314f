"""Files that start deployments, read as the commands of their servers: scripts, manifests of Kubernetes, charts, engine configurations."""
