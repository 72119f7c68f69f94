-- As a program of this step wrote it: the reseller's panel has a name, its token is for one site.
UPDATE resellers SET host = 'panel.north.example';
UPDATE tokens SET sites = '["018bcfe5-6800-7101-8101-01010101010c"]';
UPDATE audit SET reseller = uuid:018bcfe5-6800-7101-8101-010101010301;
