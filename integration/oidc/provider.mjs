// An OpenID provider for the stories: one user, who agrees to everything. Usage: node provider.mjs ADDRESS REDIRECT_URI OUT_URI JWK
// (the public key of a client that proves itself by one)
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [address, redirect, out, jwk] = process.argv.slice(2);
const issuer = `http://${address}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'shop', client_secret: 'the secret of the shop, long enough',
      redirect_uris: [redirect], post_logout_redirect_uris: [out],
      grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
      scope: 'openid email offline_access api',
    },
    {
      client_id: 'spa', token_endpoint_auth_method: 'none', redirect_uris: [redirect],
      grant_types: ['authorization_code', 'refresh_token'], application_type: 'web',
    },
    {
      client_id: 'vault', token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'ES256', jwks: { keys: [JSON.parse(jwk)] },
      redirect_uris: [redirect], grant_types: ['authorization_code', 'refresh_token'], scope: 'openid email offline_access',
    },
  ],
  scopes: ['openid', 'email', 'offline_access', 'api'],
  claims: { openid: ['sub'], email: ['email'] },
  cookies: { keys: ['only for stories'] },
  pkce: { required: () => false },
  ttl: { AccessToken: 4, ClientCredentials: 60, IdToken: 600, AuthorizationCode: 60, RefreshToken: 600, Session: 600, Grant: 600, Interaction: 600 },
  issueRefreshToken: async (ctx, client, code) => client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
  rotateRefreshToken: true,
  findAccount: async (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id, email: `${id}@example.org` }) }),
  features: {
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    revocation: { enabled: true },
    clientCredentials: { enabled: true },
    pushedAuthorizationRequests: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: async (ctx, client, oneOf) => oneOf ?? (ctx.oidc?.params?.grant_type === 'client_credentials' && ctx.oidc.params.scope === 'api' ? 'https://api.example' : undefined),
      getResourceServerInfo: async () => ({ scope: 'api', accessTokenFormat: 'jwt', accessTokenTTL: 60, jwt: { sign: { alg: 'RS256' } } }),
      useGrantedResource: async () => false,
    },
  },
  interactions: { url: (ctx, interaction) => `/agree/${interaction.uid}` },
});

const callback = provider.callback();
const server = createServer(async (request, response) => {
  if (!request.url.startsWith('/agree/')) return callback(request, response);
  const { prompt, params, session } = await provider.interactionDetails(request, response);
  if (prompt.name === 'login') {
    return provider.interactionFinished(request, response, { login: { accountId: 'uma' } });
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  return provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
});
const [host, port] = address.split(':');
server.listen(Number(port), host, () => console.log('serving'));
