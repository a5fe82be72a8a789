"""What `warmline trace` shows: lines for people, 80 columns wide, and values for programs."""
