-- As a program of this step wrote it: the account of the first step has been sold on meanwhile.
INSERT INTO resellers (id, version, created_at, updated_at, name, limits, brand) VALUES (uuid:018bcfe5-6800-7101-8101-010101010301, 1, 1700000000000, 1700000000000, 'north', '{"accounts": 5}', '{"name": "North"}');
UPDATE plans SET reseller = uuid:018bcfe5-6800-7101-8101-010101010301;
UPDATE accounts SET reseller = uuid:018bcfe5-6800-7101-8101-010101010301;
UPDATE memberships SET sites = '["018bcfe5-6800-7101-8101-01010101010c"]';
