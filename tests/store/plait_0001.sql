BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('plait_0001');
CREATE TABLE entries (
	thread_id TEXT NOT NULL, 
	n INTEGER NOT NULL, 
	id TEXT NOT NULL, 
	run_id TEXT, 
	kind TEXT NOT NULL, 
	at DOUBLE NOT NULL, 
	line TEXT NOT NULL, 
	crc BIGINT NOT NULL, 
	CONSTRAINT entries_key PRIMARY KEY (thread_id, n), 
	CONSTRAINT entries_thread FOREIGN KEY(thread_id) REFERENCES threads (thread_id), 
	CONSTRAINT entries_id UNIQUE (id)
);
INSERT INTO "entries" VALUES('thr_cddd4b7269397951ec317e3f2abbba61',1,'ent_51c45c6035d49ca570dda66aad61f908','run_1','run_started',1.79530007759946084022e+09,'{"v":1,"n":1,"id":"ent_51c45c6035d49ca570dda66aad61f908","at":1795300077.5994608,"run_id":"run_1","kind":"run_started","body":{"agent_name":"clerk"}}',3577701480);
INSERT INTO "entries" VALUES('thr_cddd4b7269397951ec317e3f2abbba61',2,'msg_d9f861a68d8c9959818eb984d734671e','run_1','message',1795300077.61365,'{"v":1,"n":2,"id":"msg_d9f861a68d8c9959818eb984d734671e","at":1795300077.61365,"run_id":"run_1","kind":"message","body":{"message":{"class_":"UserMessage","role":"user","parts":[{"type":"text","text":"message 2"}]}}}',1620800452);
CREATE TABLE leases (
	thread_id TEXT NOT NULL, 
	run_id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	CONSTRAINT leases_key PRIMARY KEY (thread_id)
);
CREATE TABLE threads (
	thread_id TEXT NOT NULL, 
	user_id TEXT NOT NULL, 
	name TEXT, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT threads_key PRIMARY KEY (thread_id), 
	CONSTRAINT threads_name UNIQUE (user_id, name)
);
INSERT INTO "threads" VALUES('thr_cddd4b7269397951ec317e3f2abbba61','ann','talk',1.79530007759230375292e+09);
COMMIT;
