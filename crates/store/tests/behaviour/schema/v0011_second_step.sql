-- As a program of this step wrote it: the person of the step before has a second step now.
UPDATE people SET second = '{"sealed": "AA", "last": 7, "recovery": []}';
