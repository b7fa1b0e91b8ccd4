CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE head (
	id INTEGER NOT NULL,
	rv INTEGER NOT NULL,
	ts_us INTEGER NOT NULL,
	epoch INTEGER NOT NULL,
	horizon_rv INTEGER NOT NULL,
	sealed_rv INTEGER NOT NULL,
	unlogged INTEGER NOT NULL,
	cluster_uid TEXT NOT NULL,
	PRIMARY KEY (id)
);
CREATE TABLE about (
	"key" TEXT NOT NULL,
	value TEXT NOT NULL,
	PRIMARY KEY ("key")
);
CREATE TABLE kinds (
	kind_id INTEGER NOT NULL,
	grp TEXT NOT NULL,
	version TEXT NOT NULL,
	kind TEXT NOT NULL,
	plural TEXT NOT NULL,
	namespaced SMALLINT NOT NULL,
	history_class TEXT NOT NULL,
	PRIMARY KEY (kind_id)
);
CREATE UNIQUE INDEX kinds_resource ON kinds (grp, plural);
CREATE TABLE actors (
	actor_id INTEGER NOT NULL,
	username TEXT NOT NULL,
	groups TEXT NOT NULL,
	user_agent TEXT NOT NULL,
	field_manager TEXT NOT NULL,
	source_ip TEXT NOT NULL,
	PRIMARY KEY (actor_id)
);
CREATE TABLE objects (
	oid INTEGER NOT NULL,
	kind_id INTEGER NOT NULL,
	ns TEXT NOT NULL,
	name TEXT NOT NULL,
	uid TEXT NOT NULL,
	rv INTEGER NOT NULL,
	delete_rv INTEGER,
	expires_us INTEGER,
	PRIMARY KEY (oid)
);
CREATE UNIQUE INDEX objects_live ON objects (kind_id, ns, name) WHERE delete_rv IS NULL;
CREATE INDEX objects_dead ON objects (kind_id, delete_rv) WHERE delete_rv IS NOT NULL;
CREATE INDEX objects_expiring ON objects (expires_us) WHERE expires_us IS NOT NULL;
CREATE INDEX objects_key ON objects (kind_id, ns, name, oid);
CREATE TABLE events (
	rv INTEGER NOT NULL,
	oid INTEGER NOT NULL,
	op SMALLINT NOT NULL,
	prev_rv INTEGER NOT NULL,
	ts_us INTEGER NOT NULL,
	actor_id INTEGER,
	decision_id INTEGER,
	request_id TEXT,
	flags SMALLINT DEFAULT '0' NOT NULL,
	body TEXT,
	body_raw BLOB,
	PRIMARY KEY (rv)
);
CREATE INDEX events_object ON events (oid, rv);
CREATE TABLE leases (
	oid INTEGER NOT NULL,
	rv INTEGER NOT NULL,
	holder TEXT NOT NULL,
	epoch INTEGER NOT NULL,
	acquired_us INTEGER NOT NULL,
	renewed_us INTEGER NOT NULL,
	ttl_ms INTEGER NOT NULL,
	body TEXT NOT NULL,
	PRIMARY KEY (oid)
);
CREATE TABLE ticks (
	second INTEGER NOT NULL,
	rv INTEGER NOT NULL,
	PRIMARY KEY (second)
);
CREATE TABLE segments (
	seg_id INTEGER NOT NULL,
	first_rv INTEGER NOT NULL,
	last_rv INTEGER NOT NULL,
	codec TEXT NOT NULL,
	uri TEXT NOT NULL,
	sha256 TEXT NOT NULL,
	n INTEGER NOT NULL,
	PRIMARY KEY (seg_id)
);
CREATE TABLE data_keys (
	key_id INTEGER NOT NULL,
	oid INTEGER,
	kind_id INTEGER,
	wrapped_key BLOB,
	destroyed_us INTEGER,
	PRIMARY KEY (key_id)
);
CREATE TABLE decisions (
	decision_id INTEGER NOT NULL,
	controller TEXT NOT NULL,
	epoch INTEGER NOT NULL,
	"key" TEXT NOT NULL,
	"trigger" TEXT NOT NULL,
	frontier TEXT NOT NULL,
	now_us INTEGER NOT NULL,
	duration_us INTEGER NOT NULL,
	effects TEXT NOT NULL,
	effects_digest TEXT NOT NULL,
	memo TEXT,
	memo_digest TEXT,
	code_hash TEXT NOT NULL,
	config_hash TEXT NOT NULL,
	rv_after INTEGER NOT NULL,
	first_rv INTEGER NOT NULL,
	last_rv INTEGER NOT NULL,
	PRIMARY KEY (decision_id)
);
CREATE INDEX decisions_position ON decisions (rv_after);
CREATE TABLE inputs (
	rv_after INTEGER NOT NULL,
	seq INTEGER NOT NULL,
	kind TEXT NOT NULL,
	payload TEXT NOT NULL,
	PRIMARY KEY (rv_after, seq)
)
 WITHOUT ROWID;
CREATE TABLE facts_pod (
	oid INTEGER NOT NULL,
	rv INTEGER NOT NULL,
	node TEXT,
	phase TEXT,
	ready SMALLINT,
	restarts INTEGER,
	reason TEXT,
	ip TEXT,
	deleting SMALLINT,
	PRIMARY KEY (oid, rv)
)
 WITHOUT ROWID;
CREATE TABLE facts_node (
	oid INTEGER NOT NULL,
	rv INTEGER NOT NULL,
	ready TEXT,
	unschedulable SMALLINT,
	taints TEXT,
	pressure TEXT,
	PRIMARY KEY (oid, rv)
)
 WITHOUT ROWID;
CREATE TABLE facts_owner (
	oid INTEGER NOT NULL,
	rv INTEGER NOT NULL,
	owner_uid TEXT NOT NULL,
	controller SMALLINT,
	block SMALLINT,
	PRIMARY KEY (oid, rv, owner_uid)
)
 WITHOUT ROWID;
CREATE INDEX facts_owner_uid ON facts_owner (owner_uid);
INSERT INTO alembic_version (version_num) VALUES ('0001');
