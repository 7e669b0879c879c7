BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE changes (
	conversation_id TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	segment_id TEXT NOT NULL, 
	"before" TEXT, 
	"after" TEXT, 
	PRIMARY KEY (conversation_id, version, segment_id), 
	FOREIGN KEY(conversation_id, version) REFERENCES writes (conversation_id, version) ON DELETE CASCADE
);
INSERT INTO "changes" VALUES('done',1,'done-1','SPEAKER_00','SPEAKER_01');
INSERT INTO "changes" VALUES('done',1,'done-3','SPEAKER_00','SPEAKER_01');
INSERT INTO "changes" VALUES('done',1,'done-5','SPEAKER_00','SPEAKER_01');
INSERT INTO "changes" VALUES('corrected',1,'corrected-1','SPEAKER_00','SPEAKER_01');
INSERT INTO "changes" VALUES('corrected',1,'corrected-3','SPEAKER_00','SPEAKER_01');
INSERT INTO "changes" VALUES('corrected',1,'corrected-5','SPEAKER_00','SPEAKER_01');
INSERT INTO "changes" VALUES('corrected',2,'corrected-1','SPEAKER_01','SPEAKER_00');
INSERT INTO "changes" VALUES('corrected',2,'corrected-3','SPEAKER_01','SPEAKER_00');
INSERT INTO "changes" VALUES('corrected',2,'corrected-5','SPEAKER_01','SPEAKER_00');
INSERT INTO "changes" VALUES('failed',1,'failed-0','SPEAKER_00',NULL);
INSERT INTO "changes" VALUES('failed',1,'failed-1','SPEAKER_00',NULL);
INSERT INTO "changes" VALUES('failed',1,'failed-2','SPEAKER_00',NULL);
INSERT INTO "changes" VALUES('failed',1,'failed-3','SPEAKER_00',NULL);
INSERT INTO "changes" VALUES('failed',1,'failed-4','SPEAKER_00',NULL);
INSERT INTO "changes" VALUES('failed',1,'failed-5','SPEAKER_00',NULL);
CREATE TABLE conversations (
	conversation_id TEXT NOT NULL, 
	revision INTEGER NOT NULL, 
	version INTEGER NOT NULL, 
	PRIMARY KEY (conversation_id)
);
INSERT INTO "conversations" VALUES('done',2,1);
INSERT INTO "conversations" VALUES('corrected',3,2);
INSERT INTO "conversations" VALUES('leased',1,0);
INSERT INTO "conversations" VALUES('failed',2,1);
INSERT INTO "conversations" VALUES('beside',1,0);
INSERT INTO "conversations" VALUES('gathered',1,0);
CREATE TABLE segments (
	conversation_id TEXT NOT NULL, 
	segment_id TEXT NOT NULL, 
	backend_revision INTEGER NOT NULL, 
	removed BOOLEAN NOT NULL, 
	text TEXT NOT NULL, 
	start_s FLOAT NOT NULL, 
	end_s FLOAT NOT NULL, 
	speaker TEXT, 
	original_speaker TEXT, 
	written_version INTEGER, 
	undone BOOLEAN NOT NULL, 
	is_user BOOLEAN NOT NULL, 
	person_id TEXT, 
	label_source TEXT, 
	words JSON, 
	PRIMARY KEY (conversation_id, segment_id), 
	FOREIGN KEY(conversation_id) REFERENCES conversations (conversation_id) ON DELETE CASCADE
);
INSERT INTO "segments" VALUES('done','done-0',0,0,'word',0.5,4.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('done','done-1',0,0,'word',5.5,9.5,'SPEAKER_01','SPEAKER_00',1,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('done','done-2',0,0,'word',10.5,14.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('done','done-3',0,0,'word',15.5,19.5,'SPEAKER_01','SPEAKER_00',1,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('done','done-4',0,0,'word',20.5,24.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('done','done-5',0,0,'word',25.5,29.5,'SPEAKER_01','SPEAKER_00',1,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('corrected','corrected-0',0,0,'word',0.5,4.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('corrected','corrected-1',0,0,'word',5.5,9.5,'SPEAKER_00','SPEAKER_00',NULL,1,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('corrected','corrected-2',0,0,'word',10.5,14.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('corrected','corrected-3',0,0,'word',15.5,19.5,'SPEAKER_00','SPEAKER_00',NULL,1,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('corrected','corrected-4',0,0,'word',20.5,24.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('corrected','corrected-5',0,0,'word',25.5,29.5,'SPEAKER_00','SPEAKER_00',NULL,1,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('leased','leased-0',0,0,'word',0.5,4.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('leased','leased-1',0,0,'word',5.5,9.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('leased','leased-2',0,0,'word',10.5,14.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('leased','leased-3',0,0,'word',15.5,19.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('leased','leased-4',0,0,'word',20.5,24.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('leased','leased-5',0,0,'word',25.5,29.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('failed','failed-0',0,0,'word',0.5,4.5,NULL,'SPEAKER_00',1,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('failed','failed-1',0,0,'word',5.5,9.5,NULL,'SPEAKER_00',1,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('failed','failed-2',0,0,'word',10.5,14.5,NULL,'SPEAKER_00',1,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('failed','failed-3',0,0,'word',15.5,19.5,NULL,'SPEAKER_00',1,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('failed','failed-4',0,0,'word',20.5,24.5,NULL,'SPEAKER_00',1,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('failed','failed-5',0,0,'word',25.5,29.5,NULL,'SPEAKER_00',1,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('beside','beside-0',2,0,'word',0.5,4.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('beside','beside-1',0,0,'word',5.5,9.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('beside','beside-2',0,0,'word',10.5,14.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('beside','beside-3',0,0,'word',15.5,19.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('beside','beside-4',0,0,'word',20.5,24.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('beside','beside-5',0,0,'word',25.5,29.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('gathered','gathered-0',0,0,'word',0.5,4.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('gathered','gathered-1',0,0,'word',5.5,9.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('gathered','gathered-2',0,0,'word',10.5,14.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('gathered','gathered-3',0,0,'word',15.5,19.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('gathered','gathered-4',0,0,'word',20.5,24.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
INSERT INTO "segments" VALUES('gathered','gathered-5',0,0,'word',25.5,29.5,'SPEAKER_00','SPEAKER_00',NULL,0,0,NULL,NULL,NULL);
CREATE TABLE writes (
	conversation_id TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	write_key TEXT NOT NULL, 
	written_at_s FLOAT NOT NULL, 
	PRIMARY KEY (conversation_id, version), 
	FOREIGN KEY(conversation_id) REFERENCES conversations (conversation_id) ON DELETE CASCADE
);
INSERT INTO "writes" VALUES('done',1,'apply','520c9a098b19f54fd867792d3c4a033b558a66e517341d7d631a0819367cc260',1795917941.92845);
INSERT INTO "writes" VALUES('corrected',1,'apply','1a91b994f75625825b5daf2e1d6bc086c2cb9e52fc7c0171a94f19d8652afc2d',1.79591794212416291237e+09);
INSERT INTO "writes" VALUES('corrected',2,'undo','undo-1-2',1.79591794499505066871e+09);
INSERT INTO "writes" VALUES('failed',1,'apply','3475213f6326dfc2b182662426f92693997008a108dcebfe0543566976908a31',1.79591794720840382572e+09);
COMMIT;
