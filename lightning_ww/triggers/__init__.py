"""Conditions on measurements become flags on layers. They know no Trainer, and stop nothing."""
