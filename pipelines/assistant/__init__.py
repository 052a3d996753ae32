"""MCP: an AI assistant reads one account's tables and views, as the BI role, and nothing else. What it reads
was typed by people whom nothing here trusts."""
