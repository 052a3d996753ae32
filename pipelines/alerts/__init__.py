"""Alerts: a message when an account needs something, and one when it is good again, by e-mail, Slack,
Telegram or any webhook. `mirror.alerts` holds what each channel has been sent.
"""
