"""What people do on a marketplace, as stories: each step is made from the answers to those before it."""
