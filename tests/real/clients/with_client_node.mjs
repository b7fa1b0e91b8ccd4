// @kubernetes/client-node, unmodified. Arguments: kubeconfig, namespace. Ends with exit code 0, or says what failed.
import assert from 'node:assert/strict';
import * as k8s from '@kubernetes/client-node';

const [kubeconfig, namespace] = process.argv.slice(2);
const config = new k8s.KubeConfig();
config.loadFromFile(kubeconfig);
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const labels = { 'made-by': 'test' };
const configMap = (name, data = {}) => ({ metadata: { name, labels }, data });

async function refused(promise) {
  try {
    await promise;
  } catch (error) {
    const body = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
    return [error.code, body.reason];
  }
  assert.fail('not refused');
}

const once = (emitter) => new Promise((resolve) => emitter(resolve));

const scenarios = {
  async 'create, read, replace, patch, delete'() {
    const made = await core.createNamespacedConfigMap({ namespace, body: configMap('a', { x: '1' }) });
    made.data.y = '2';
    const replaced = await core.replaceNamespacedConfigMap({ name: 'a', namespace, body: made });
    assert.deepEqual(replaced.data, { x: '1', y: '2' });
    const patched = await core.patchNamespacedConfigMap({
      name: 'a', namespace, body: [{ op: 'remove', path: '/data/x' }],
    });
    assert.deepEqual(patched.data, { y: '2' });
    const merged = await core.patchNamespacedConfigMap(
      { name: 'a', namespace, body: { data: { z: '3' } } },
      k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch),
    );
    assert.deepEqual(merged.data, { y: '2', z: '3' });
    const applied = await core.patchNamespacedConfigMap(
      { name: 'a', namespace, fieldManager: 'me', body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' }, data: { w: '4' } } },
      k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.ServerSideApply),
    );
    assert.equal(applied.data.w, '4');
    await core.deleteNamespacedConfigMap({ name: 'a', namespace });
    assert.deepEqual(await refused(core.readNamespacedConfigMap({ name: 'a', namespace })), [404, 'NotFound']);
  },

  async 'lists in pages'() {
    for (let n = 0; n < 5; n++) await core.createNamespacedConfigMap({ namespace, body: configMap(`page-${n}`) });
    const seen = [];
    let token;
    do {
      const page = await core.listNamespacedConfigMap({ namespace, labelSelector: 'made-by=test', limit: 2, _continue: token });
      seen.push(...page.items.map((item) => item.metadata.name));
      token = page.metadata._continue;
    } while (token);
    assert.deepEqual(seen, [0, 1, 2, 3, 4].map((n) => `page-${n}`));
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'made-by=test' });
  },

  async 'a watch with resume'() {
    const before = (await core.listNamespacedConfigMap({ namespace })).metadata.resourceVersion;
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const watch = new k8s.Watch(config);
    const follow = async (resourceVersion, count) => {
      const seen = [];
      let request;
      const all = new Promise((resolve, reject) => {
        request = watch.watch(
          path, { resourceVersion, labelSelector: 'made-by=test' },
          (type, obj) => { seen.push([type, obj.metadata.name, obj.metadata.resourceVersion]); if (seen.length === count) resolve(); },
          (error) => (seen.length < count ? reject(error ?? new Error('ended')) : undefined),
        );
      });
      await all;
      (await request).abort();
      return seen;
    };
    await core.createNamespacedConfigMap({ namespace, body: configMap('w') });
    const [[type, , rv]] = await follow(before, 1);
    assert.equal(type, 'ADDED');
    await core.deleteNamespacedConfigMap({ name: 'w', namespace });
    assert.equal((await follow(rv, 1))[0][0], 'DELETED');
  },

  async 'an informer'() {
    await core.createNamespacedConfigMap({ namespace, body: configMap('i-1') });
    const informer = k8s.makeInformer(
      config, `/api/v1/namespaces/${namespace}/configmaps`,
      () => core.listNamespacedConfigMap({ namespace, labelSelector: 'made-by=test' }), 'made-by=test',
    );
    const seen = [];
    const done = once((resolve) => {
      for (const verb of ['add', 'update', 'delete']) {
        informer.on(verb, (obj) => {
          seen.push(`${verb} ${obj.metadata.name}`);
          if (verb === 'delete') resolve();
        });
      }
    });
    await informer.start();
    await core.createNamespacedConfigMap({ namespace, body: configMap('i-2') });
    await core.patchNamespacedConfigMap({ name: 'i-2', namespace, body: [{ op: 'add', path: '/data', value: { a: '1' } }] });
    await core.deleteNamespacedConfigMap({ name: 'i-2', namespace });
    await done;
    await informer.stop();
    assert.deepEqual(seen, ['add i-1', 'add i-2', 'update i-2', 'delete i-2']);
  },

  async 'objects of any kind'() {
    const client = k8s.KubernetesObjectApi.makeApiClient(config);
    const spec = {
      apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web', namespace },
      spec: {
        replicas: 0, selector: { matchLabels: { app: 'web' } },
        template: { metadata: { labels: { app: 'web' } }, spec: { containers: [{ name: 'web', image: 'web:1' }] } },
      },
    };
    const made = await client.create(spec);
    assert.equal(made.spec.strategy.type, 'RollingUpdate');
    const patched = await client.patch({ ...spec, spec: { template: { spec: { containers: [{ name: 'web', env: [{ name: 'A', value: '1' }] }] } } } });
    assert.equal(patched.spec.template.spec.containers[0].image, 'web:1');
    assert.equal((await client.read(spec)).metadata.uid, made.metadata.uid);
    const scale = await apps.readNamespacedDeploymentScale({ name: 'web', namespace });
    assert.equal(scale.spec.replicas, 0);
    await client.delete(spec);
  },

  async 'errors'() {
    await core.createNamespacedConfigMap({ namespace, body: configMap('e') });
    assert.deepEqual(await refused(core.createNamespacedConfigMap({ namespace, body: configMap('e') })), [409, 'AlreadyExists']);
    assert.deepEqual(await refused(core.createNamespacedConfigMap({ namespace, body: configMap('A_B') })), [422, 'Invalid']);
  },

  async 'a token'() {
    await core.createNamespacedServiceAccount({ namespace, body: { metadata: { name: 'robot' } } });
    const { status } = await core.createNamespacedServiceAccountToken({ name: 'robot', namespace, body: { spec: { audiences: [] } } });
    const robot = new k8s.KubeConfig();
    robot.loadFromOptions({
      clusters: [config.getCurrentCluster()], users: [{ name: 'robot', token: status.token }],
      contexts: [{ name: 'r', cluster: config.getCurrentCluster().name, user: 'robot' }], currentContext: 'r',
    });
    const me = await robot.makeApiClient(k8s.AuthenticationV1Api).createSelfSubjectReview({ body: {} });
    assert.equal(me.status.userInfo.username, `system:serviceaccount:${namespace}:robot`);
    assert.deepEqual(await refused(robot.makeApiClient(k8s.CoreV1Api).listNamespacedSecret({ namespace })), [403, 'Forbidden']);
  },
};

for (const [name, scenario] of Object.entries(scenarios)) {
  try {
    await scenario();
    console.log(`ok ${name}`);
  } catch (error) {
    console.error(`failed: ${name}\n`, error);
    process.exit(1);
  }
}
process.exit(0);
