"""What can be wrong with auctions, presales, channels, timers, requests, and where documents come from."""

from tests.system.audit.corruption import ELSEWHERE, Corruption

DAMAGE_TO_DOCUMENTS = [
    Corruption(
        "V19",
        "bids without leader",
        "UPDATE auctions SET leader_bid_id = NULL WHERE id = '{auction}'",
        "{auction}",
    ),
    Corruption(
        "V19",
        "two leaders",
        "UPDATE bids SET state = 'leading' WHERE auction_id = '{auction}' AND bidder_id = {carol}",
        "{auction}",
    ),
    Corruption(
        "V19",
        "a leader who is not the highest",
        "UPDATE bids SET amount_nano = amount_nano * 9 WHERE auction_id = '{auction}' AND state = 'outbid'",
        "{auction}",
    ),
    Corruption(
        "V19",
        "a leader who holds too little",
        "UPDATE bids SET held_nano = 1 WHERE auction_id = '{auction}' AND state = 'leading'",
        "{auction}",
    ),
    Corruption(
        "V19",
        "an end too late",
        "UPDATE auctions SET ends_at = planned_ends_at + interval '3601 seconds' WHERE id = '{auction}'",
        "{auction}",
    ),
    Corruption(
        "V19",
        "sold to the second",
        "UPDATE deals SET buyer_id = {carol} WHERE source = 'auction'",
        "{won_auction}",
    ),
    Corruption("V19", "sold to nobody", "UPDATE bids SET state = 'outbid' WHERE id = '{winning}'", "{won_auction}"),
    Corruption("V19", "sold without a deal", "DELETE FROM deals WHERE source = 'auction'", "{won_auction}"),
    Corruption(
        "V19",
        "unsold in spite of bids",
        "UPDATE auctions SET state = 'unsold' WHERE id = '{won_auction}'",
        "{won_auction}",
    ),
    Corruption(
        "V20",
        "a deposit too small",
        "UPDATE presales SET deposit_held_nano = deposit_held_nano - 1 WHERE id = '{prelisted}'",
        "{prelisted}",
    ),
    Corruption(
        "V20",
        "a registered one with a deposit",
        "UPDATE presales SET deposit_held_nano = 1 WHERE id = '{preregistered}'",
        "{preregistered}",
    ),
    Corruption("V20", "sold to nobody", "UPDATE presales SET buyer_id = NULL WHERE id = '{presold}'", "{presold}"),
    Corruption(
        "V20", "sold and not paid", "UPDATE presales SET buyer_held_nano = 0 WHERE id = '{presold}'", "{presold}"
    ),
    Corruption(
        "V20", "listed and bought", "UPDATE presales SET buyer_id = {carol} WHERE id = '{prelisted}'", "{prelisted}"
    ),
    Corruption(
        "V20", "closed and holding", "UPDATE presales SET buyer_held_nano = 1 WHERE id = '{failed}'", "{failed}"
    ),
    Corruption(
        "V21",
        "two presales of a gift",
        "UPDATE presales SET gift_id = {presold_gift} WHERE id = '{prelisted}'",
        "gift {presold_gift}",
    ),
    Corruption(
        "V21",
        "a presale of what is in custody",
        "UPDATE presales SET gift_id = {held} WHERE id = '{prelisted}'",
        "{prelisted}",
    ),
    Corruption(
        "V22", "sold to nobody", "UPDATE channel_purchases SET state = 'failed' WHERE id = '{purchase}'", "{selling}"
    ),
    Corruption("V22", "a sale of nothing", "UPDATE channels SET state = 'listed' WHERE id = {selling}", "{purchase}"),
    Corruption(
        "V22", "listed without a price", "UPDATE channels SET price_nano = NULL WHERE id = {channel}", "{channel}"
    ),
    Corruption("V22", "priced unlisted", "UPDATE channels SET state = 'unlisted' WHERE id = {channel}", "{channel}"),
    Corruption(
        "V22",
        "two purchases",
        "INSERT INTO channel_purchases SELECT * FROM channel_purchases WHERE id = '{purchase}'",
        "{selling}",
    ),
    Corruption(
        "V23",
        "an auction without end",
        "DELETE FROM commands WHERE kind = 'auctions.settle' AND payload ->> 'auction_id' = '{auction}'",
        "auctions.settle {auction}",
    ),
    Corruption(
        "V23",
        "an offer whose timer failed",
        "UPDATE commands SET status = 'failed' WHERE kind = 'offers.expire' AND payload ->> 'offer_id' = '{offer}'",
        "offers.expire {offer}",
    ),
    Corruption(
        "V23",
        "a timer that comes too soon",
        "UPDATE presales SET deadline_at = deadline_at + interval '1 second' WHERE id = '{presold}'",
        "presale.expire {presold}",
    ),
    Corruption(
        "V23",
        "a request that would wait for ever",
        "DELETE FROM commands WHERE kind = 'market.withdraw_fail' AND payload ->> 'withdrawal_id' = '{withdrawal}'",
        "market.withdraw_fail {withdrawal}",
    ),
    Corruption(
        "V23",
        "an inspection that would",
        "UPDATE commands SET status = 'cancelled' WHERE kind = 'channels.add_fail' AND status = 'scheduled'",
        "channels.add_fail {check}",
    ),
    Corruption(
        "V24",
        "a payout that nobody was asked for",
        "DELETE FROM gateway_requests WHERE reference = '{withdrawal}'",
        "withdrawal {withdrawal}",
    ),
    Corruption(
        "V24",
        "a return whose answer is lost",
        "UPDATE gateway_requests SET state = 'done' WHERE reference = '{return}'",
        "return {return}",
    ),
    Corruption(
        "V24",
        "a purchase asked for twice",
        "INSERT INTO gateway_requests SELECT * FROM gateway_requests WHERE reference = '{purchase}'",
        "channel purchase {purchase}",
    ),
    Corruption(
        "V24",
        "a channel that is never inspected",
        "UPDATE gateway_requests SET state = 'cancelled' WHERE reference = '{check}'",
        "channel {checking}",
    ),
    Corruption(
        "V24",
        "a code that is never sent",
        "DELETE FROM gateway_requests WHERE reference = '{connecting}'",
        "account {connecting}",
    ),
    Corruption(
        "V28",
        "a deposit that no command recorded",
        "UPDATE commands SET status = 'failed' WHERE id = '{assigned}'",
        "{assigned}",
    ),
    Corruption(
        "V28",
        "an intake by another kind",
        "UPDATE intakes SET command_id = '{registered}' WHERE nft_id = {held}",
        "{registered}",
    ),
    *(
        Corruption("V28", f"one of {table} by no command", f"UPDATE {table} SET id = '{ELSEWHERE}'", ELSEWHERE)
        for table in (
            "offers",
            "auctions",
            "bids",
            "presales",
            "trades",
            "proposals",
            "withdrawals",
            "returns",
            "deals",
            "telegram_accounts",
            "channel_purchases",
        )
    ),
    Corruption(
        "V28",
        "a request by no command",
        f"UPDATE gateway_requests SET reference = '{ELSEWHERE}' WHERE op = 'ton.pay'",
        ELSEWHERE,
    ),
    Corruption("V28", "an offer by a bid", "UPDATE offers SET id = '{raised}' WHERE id = '{offer}'", "{raised}"),
    Corruption("V28", "a sale by an auction", "UPDATE deals SET source = 'auction' WHERE id = '{deal}'", "{deal}"),
]
