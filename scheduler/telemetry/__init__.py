"""Where the numbers go: logs of histograms, Prometheus, OpenTelemetry, and the options that ask for them."""
