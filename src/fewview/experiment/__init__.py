"""Methods x views x seeds on cases: runs them, hands finished files to evaluation, reports.

Stands on top: it alone sees both truths and methods, and gives each only its own side.
`prediction` receives views and never a truth; `scoring` receives files and never a method.
"""
