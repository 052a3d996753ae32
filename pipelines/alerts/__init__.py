"""Tells a person, once, that an account needs something, and once that it is good again: e-mail, Slack,
Telegram or any webhook. What was told is in `mirror.alerts`.
"""
