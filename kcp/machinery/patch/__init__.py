"""The four patch types, and field ownership.

json_patch, merge_patch, strategic and apply are the doors; ownership (who owns what, what changed), typed (merge and
remove by schema) and managers (managedFields) are what apply stands on.
"""
