"""What a real kernel did."""
