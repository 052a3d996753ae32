"""Commands that other programs call or read: metrics and health for a monitoring system, MCP for an
assistant, dashboards for BI tools."""
