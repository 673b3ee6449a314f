"""Facts that several views and exporters need: critical path, timeline, unrolled nodes, findings."""
