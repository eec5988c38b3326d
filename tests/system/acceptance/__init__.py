"""What the marketplace must do, scenario by scenario: a file for each module, HTTP in, receipt out."""
