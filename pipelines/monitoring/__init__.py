"""What a monitoring system asks: metrics in Prometheus' format and health, from one read of Postgres, and the
small web server that answers with both. Asks amoCRM nothing."""
