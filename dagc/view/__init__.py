"""What people look at: facts about a plan, pictures and reports."""
