-- As a program of this step wrote it: the reseller is suspended with its customers, and had made the token.
UPDATE resellers SET state = 'suspended_with_customers';
UPDATE tokens SET made_by = uuid:018bcfe5-6800-7101-8101-010101010301;
