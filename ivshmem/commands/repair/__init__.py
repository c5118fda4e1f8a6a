"""Commands that find faults and clean up."""
