"""What reports share: charts, sheets of pictures, places to look at, HTML pages."""
