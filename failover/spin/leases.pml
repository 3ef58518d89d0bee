/* Leases and claims among three regions, of which 0 and 1 claim and 2 only votes: two epochs of each, every message at any
 * time or never, every region's leader replaced at any time. Checked: no two regions serve at once, an owner that begins
 * has all that was confirmed below its epoch, and an owner that serves knows all that was confirmed.
 *
 * A step of a region is atomic and durable, as a command in its Raft group is; what a leader alone knows dies with it. Time
 * is counted in ticks of true time: HOLD is how long a grant binds at least, on the fastest clock, and TERM how long the
 * owner counts on it at most, on the slowest, less the margin. The margin is what makes TERM <= HOLD.
 *
 * Each of the names below is a mistake that must break it; mistakes.sh sees that it does:
 *   MARGIN_FORGOTTEN      the owner counts on all of the lease, on a slow clock
 *   LEASE_FROM_ANSWER     the lease counts from the answer
 *   GRANT_FORGOTTEN       a region's next leader does not wait out what its predecessor granted
 *   SERVES_EARLY          an owner serves before an entry of its own epoch is held by a quorum
 *   APPEND_BELOW_PROMISE  a member takes entries of an epoch below its promise
 *   SHORTER_LOG_WINS      a vote for a candidate whose log lacks what the voter's has
 *   RELEASE_NOT_WRITTEN   who hands over has not written down that it gave its epoch up
 */
#define REGIONS 3
#define CLAIMANTS 2
#ifndef EPOCHS
#define EPOCHS 4
#endif
#define HOLD 2
#ifdef MARGIN_FORGOTTEN
#define TERM 3
#else
#define TERM 2
#endif

#define BIT(x) (1 << (x))
#define OWNER(e) ((e) & 1) /* epochs 2 and 4 are region 0's, 1 and 3 region 1's */
#define QUORUM(mask) ((mask) == 3 || (mask) == 5 || (mask) == 6 || (mask) == 7)

#define FOLLOWING 0
#define CLAIMING 1
#define OWNING 2 /* its first entry is written */
#define BEGUN 3  /* and it knows that a quorum holds it */

/* Durable, by region. A log is the set of epochs of which it holds the first entry; an owner writes no other. */
byte promised[REGIONS];
byte logs[REGIONS];

/* A leader's alone: the grant that binds it, and what it is as a claimant or owner. */
byte held[REGIONS];
byte heldFor[REGIONS]; /* ticks */
byte part[CLAIMANTS];
byte epoch[CLAIMANTS];
byte votes[CLAIMANTS]; /* who voted; then, who holds its first entry. It learns of them when it goes on. */
/* A lease is granted when it is asked for, which is when it binds the grantor for the least time, and the answer is under
 * way for as long as it likes. Both in ticks that are left of it, counted from the ask. */
byte answer[6];
byte lease[6];

/* A ghost: the epochs whose first entry an owner knew to be held by a quorum. */
byte confirmed;

#define PAIR(c, m) ((c) * REGIONS + (m))
#define LEASED(c) (lease[PAIR(c, 2)] > 0 || lease[PAIR(c, 1 - (c))] > 0)
#ifdef SERVES_EARLY
#define SERVES(c) (part[c] >= OWNING && LEASED(c))
#else
#define SERVES(c) (part[c] == BEGUN && LEASED(c))
#endif
/* The last entry's epoch. */
#define LAST(log) ((log) >= 16 -> 4 : ((log) >= 8 -> 3 : ((log) >= 4 -> 2 : ((log) >= 2 -> 1 : 0))))
#define FREE(m, c) (heldFor[m] == 0 || OWNER(held[m]) == (c))
/* An owner that is leased votes for nobody. */
#define UNLEASED(m) (!(part[m] >= OWNING && LEASED(m)))
#ifdef SHORTER_LOG_WINS
#define LONGER(c, m) true
#else
#define LONGER(c, m) (LAST(logs[c]) >= LAST(logs[m]))
#endif
#ifdef APPEND_BELOW_PROMISE
#define TAKES(m, e) true
#else
#define TAKES(m, e) ((e) >= promised[m])
#endif
#ifdef RELEASE_NOT_WRITTEN
#define RELEASE(c, e) skip
#else
#define RELEASE(c, e) promised[c] = e
#endif

inline check() {
	assert(!(SERVES(0) && SERVES(1)));
	assert(!SERVES(0) || part[0] == BEGUN || confirmed == 0);
	assert(!SERVES(1) || part[1] == BEGUN || confirmed == 0)
}

/* follow: a claimant or owner no more. */
#define FOLLOW(c) \
	part[c] = FOLLOWING; epoch[c] = 0; votes[c] = 0; \
	answer[PAIR(c, 0)] = 0; answer[PAIR(c, 1)] = 0; answer[PAIR(c, 2)] = 0; \
	lease[PAIR(c, 0)] = 0; lease[PAIR(c, 1)] = 0; lease[PAIR(c, 2)] = 0

#define BEGIN(c) \
	part[c] = OWNING; \
	assert((confirmed & (BIT(epoch[c]) - 1) & ~logs[c]) == 0); \
	logs[c] = logs[c] | BIT(epoch[c]); \
	votes[c] = BIT(c)

/* A region claims an epoch of its own above its promise. */
#define CLAIM(c, e) \
	:: d_step { OWNER(e) == c && e <= EPOCHS && e > promised[c] && FREE(c, c) && UNLEASED(c) -> \
		FOLLOW(c); part[c] = CLAIMING; epoch[c] = e; promised[c] = e; votes[c] = BIT(c) }

/* A claimant votes for the other, or the third region does. */
#define VOTE(c, m) \
	part[c] == CLAIMING && epoch[c] > promised[m] && FREE(m, c) && LONGER(c, m)
#define VOTES(c) \
	:: d_step { VOTE(c, 1 - c) && UNLEASED(1 - c) -> \
		promised[1 - c] = epoch[c]; FOLLOW(1 - c); votes[c] = votes[c] | BIT(1 - c) } \
	:: d_step { VOTE(c, 2) -> promised[2] = epoch[c]; votes[c] = votes[c] | BIT(2) } \
	:: d_step { part[c] == CLAIMING && QUORUM(votes[c]) -> BEGIN(c) }

/* The others take the owner's log, and the owner hears of it. */
#define APPEND(c, m) \
	part[c] >= OWNING && TAKES(m, epoch[c]) && (votes[c] & BIT(m)) == 0
#define TAKE(c, m) \
	promised[m] = (epoch[c] > promised[m] -> epoch[c] : promised[m]); logs[m] = logs[c]; votes[c] = votes[c] | BIT(m)
#define APPENDS(c) \
	:: d_step { APPEND(c, 1 - c) -> TAKE(c, 1 - c); FOLLOW(1 - c) } \
	:: d_step { APPEND(c, 2) -> TAKE(c, 2) } \
	:: d_step { part[c] == OWNING && QUORUM(votes[c]) -> part[c] = BEGUN; confirmed = confirmed | BIT(epoch[c]); check() }

/* An owner asks for a lease and is granted it; the answer comes some time. */
#ifdef LEASE_FROM_ANSWER
#define COUNT(c, m) TERM
#else
#define COUNT(c, m) answer[PAIR(c, m)]
#endif
#define LEASES(c, m) \
	:: d_step { part[c] >= OWNING && promised[m] == epoch[c] && answer[PAIR(c, m)] < TERM -> \
		held[m] = epoch[c]; heldFor[m] = HOLD; answer[PAIR(c, m)] = TERM } \
	:: d_step { answer[PAIR(c, m)] > 0 && lease[PAIR(c, m)] < COUNT(c, m) -> \
		lease[PAIR(c, m)] = COUNT(c, m); answer[PAIR(c, m)] = 0; check() }

/* An owner hands over to the other, which holds all that it has. Its promise is a vote, and what it was granted is void. */
#define HANDOVER(c, e) \
	:: d_step { part[c] == BEGUN && OWNER(e) != c && e <= EPOCHS && e > promised[c] && e > promised[1 - c] && \
			logs[1 - c] == logs[c] && (heldFor[1 - c] == 0 || held[1 - c] <= epoch[c]) -> \
		RELEASE(c, e); FOLLOW(c); FOLLOW(1 - c); \
		part[1 - c] = CLAIMING; epoch[1 - c] = e; promised[1 - c] = e; votes[1 - c] = 3; BEGIN(1 - c) }

/* A region's leader is replaced. The next one waits for what its predecessor may have granted, and if its epoch is begun it
 * goes on with it. */
#ifdef GRANT_FORGOTTEN
#define BOUND(m) held[m] = 0; heldFor[m] = 0
#else
#define BOUND(m) held[m] = promised[m]; heldFor[m] = HOLD
#endif
#define REPLACE(c) \
	:: d_step { promised[c] > 0 -> BOUND(c); FOLLOW(c); \
		if \
		:: OWNER(promised[c]) == c && LAST(logs[c]) == promised[c] -> \
			part[c] = OWNING; epoch[c] = promised[c]; votes[c] = BIT(c) \
		:: else \
		fi }

inline shorten(ticks) {
	if
	:: ticks > 0 -> ticks--
	:: else
	fi
}

active proctype world() {
	byte i;
	do
	CLAIM(0, 2) CLAIM(0, 4) CLAIM(1, 1) CLAIM(1, 3)
	VOTES(0) VOTES(1)
	APPENDS(0) APPENDS(1)
	LEASES(0, 1) LEASES(0, 2) LEASES(1, 0) LEASES(1, 2)
	HANDOVER(0, 1) HANDOVER(0, 3) HANDOVER(1, 2) HANDOVER(1, 4)
	REPLACE(0) REPLACE(1)
	:: d_step { promised[2] > 0 -> BOUND(2) }
	:: d_step { /* time passes */
		for (i : 0 .. REGIONS - 1) {
			shorten(heldFor[i]);
			if
			:: heldFor[i] == 0 -> held[i] = 0
			:: else
			fi
		}
		for (i : 0 .. CLAIMANTS * REGIONS - 1) {
			shorten(answer[i]); shorten(lease[i])
		}
		i = 0
	}
	od
}
