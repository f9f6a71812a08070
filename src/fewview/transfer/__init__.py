"""What is learned on one kind of image put to use on another.

Never imports `reconstruct` or `evaluation`: volumes come as files, results leave as files.
"""
