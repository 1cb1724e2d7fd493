"""The made-up world of the quickstarts: small-number arithmetic."""
