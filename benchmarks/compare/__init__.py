"""`softprompt bench compare`: methods against each other under equal tuning budgets, over seeds, with intervals."""
