"""What can be wrong, and by which name the audit must tell it. `{…}` are the bazaar's names of things."""

from typing import NamedTuple

ELSEWHERE = "00000000-0000-7000-8000-000000000000"


class Corruption(NamedTuple):
    """What is done to a copy, and the finding that the invariant must have then."""

    invariant: str
    name: str
    damage: str
    found: str


_CHECKED_MONEY = [
    Corruption(
        "V1",
        "money from nowhere",
        "UPDATE accounts SET available_nano = available_nano + 1 WHERE id = {bob}",
        "1",
    ),
    Corruption(
        "V2",
        "a balance without a posting",
        "UPDATE accounts SET available_nano = available_nano + 7 WHERE id = {bob};"
        "UPDATE accounts SET available_nano = available_nano - 7 WHERE id = {alice}",
        "{bob} available",
    ),
    Corruption(
        "V2",
        "a posting lost",
        "DELETE FROM postings WHERE credit_account = {alice} AND document_id = '{deal}'",
        "{alice} available",
    ),
    Corruption("V2", "a side of an account", "UPDATE accounts SET held_nano = 0 WHERE id = {bob}", "{bob} held"),
    Corruption(
        "V2",
        "an account lost",
        "DELETE FROM accounts WHERE id = {dave}",
        "{dave} available",
    ),
    Corruption("V3", "a debt", "UPDATE accounts SET available_nano = -1 WHERE id = {carol}", "{carol}"),
    Corruption("V3", "a hold below nothing", "UPDATE accounts SET held_nano = -1 WHERE id = {carol}", "{carol}"),
    Corruption("V3", "fees owed", "UPDATE accounts SET available_nano = -1 WHERE id = -1", "-1"),
    Corruption("V3", "deposits that went out", "UPDATE accounts SET available_nano = 1 WHERE id = -2", "-2"),
    Corruption("V3", "withdrawals that came in", "UPDATE accounts SET available_nano = -1 WHERE id = -3", "-3"),
    Corruption("V3", "the platform holding", "UPDATE accounts SET held_nano = 1 WHERE id = -4", "-4"),
    Corruption("V3", "unclaimed deposits owed", "UPDATE accounts SET available_nano = -1 WHERE id = -5", "-5"),
    Corruption(
        "V4",
        "held for nothing",
        "UPDATE accounts SET held_nano = held_nano + 5, available_nano = available_nano - 5 WHERE id = {carol}",
        "{carol}",
    ),
    Corruption("V4", "a hold without an account", "UPDATE offers SET author_id = 999 WHERE id = '{offer}'", "999"),
    Corruption("V4", "a hold forgotten", "UPDATE withdrawals SET held_nano = 0 WHERE id = '{withdrawal}'", "{bob}"),
    Corruption(
        "V5", "a closed offer that holds", "UPDATE offers SET held_nano = 1 WHERE id = '{accepted}'", "offer {accepted}"
    ),
    Corruption("V5", "an open offer without", "UPDATE offers SET held_nano = 0 WHERE id = '{offer}'", "offer {offer}"),
    Corruption("V5", "a bid outbid that holds", "UPDATE bids SET held_nano = 1 WHERE id = '{lost}'", "bid {lost}"),
    Corruption("V5", "a raised bid that holds", "UPDATE bids SET held_nano = 1 WHERE id = '{raised}'", "bid {raised}"),
    Corruption(
        "V5",
        "a payout that still holds",
        "UPDATE withdrawals SET held_nano = 1 WHERE id = '{paid}'",
        "withdrawal {paid}",
    ),
    Corruption("V5", "a return without", "UPDATE returns SET held_nano = 0 WHERE id = '{return}'", "return {return}"),
    Corruption(
        "V5",
        "a purchase without",
        "UPDATE channel_purchases SET held_nano = 0 WHERE id = '{purchase}'",
        "channel_purchase {purchase}",
    ),
    Corruption(
        "V5",
        "a failed presale that holds",
        "UPDATE presales SET deposit_held_nano = 1 WHERE id = '{failed}'",
        "presale {failed}",
    ),
    Corruption(
        "V6",
        "two documents' holds confused",
        "UPDATE postings SET document_id = '{paid}' WHERE document_id = '{withdrawal}'",
        "withdrawal {withdrawal} of {bob}",
    ),
    Corruption(
        "V6",
        "another's hold",
        "UPDATE postings SET credit_account = {carol} WHERE document_id = '{offer}'",
        "offer {offer} of {carol}",
    ),
    Corruption(
        "V6",
        "a raise not posted",
        "DELETE FROM postings WHERE document_kind = 'bid' AND amount_nano = 1000000000 AND debit_account = {bob}",
        "bid {auction} of {bob}",
    ),
    Corruption(
        "V6",
        "a penalty not posted",
        "DELETE FROM postings WHERE document_id = '{failed}' AND credit_account = -1",
        "presale {failed} of {alice}",
    ),
    Corruption(
        "V7",
        "an effect of a refused command",
        "UPDATE events SET command_id = '{refused}' WHERE name = 'nft.transferred'",
        "{refused}",
    ),
    Corruption(
        "V7",
        "a deal of a refused command",
        "UPDATE deals SET id = '{refused}' WHERE id = '{deal}'",
        "{refused}",
    ),
    Corruption(
        "V7",
        "a posting of no command",
        f"UPDATE postings SET command_id = '{ELSEWHERE}' WHERE document_kind = 'deal'",
        ELSEWHERE,
    ),
    Corruption("V7", "a posting of nothing", "UPDATE postings SET amount_nano = 0 WHERE id = 1", "posting 1"),
    Corruption(
        "V7",
        "a posting to itself",
        "UPDATE postings SET credit_account = debit_account, credit_side = debit_side WHERE id = 1",
        "posting 1",
    ),
    Corruption(
        "V8",
        "a fee too high",
        "UPDATE deals SET fee_nano = fee_nano + 1, seller_nano = seller_nano - 1 WHERE id = '{deal}'",
        "{deal}",
    ),
    Corruption(
        "V8",
        "a price that is not its parts",
        "UPDATE deals SET price_nano = price_nano + 1 WHERE id = '{deal}'",
        "{deal}",
    ),
    Corruption("V8", "no seller's part", "UPDATE deals SET seller_nano = NULL WHERE id = '{deal}'", "{deal}"),
    Corruption("V8", "no price", "UPDATE deals SET price_nano = NULL WHERE id = '{deal}'", "{deal}"),
    Corruption("V8", "a deal with oneself", "UPDATE deals SET seller_id = buyer_id WHERE id = '{deal}'", "{deal}"),
    Corruption("V9", "a deposit of another amount", "UPDATE deposits SET amount_nano = amount_nano + 1", "-2"),
    Corruption("V9", "an unclaimed deposit forgotten", "DELETE FROM deposits WHERE state = 'unclaimed'", "-5"),
    Corruption(
        "V9", "a deposit assigned twice", "UPDATE deposits SET state = 'unclaimed' WHERE id = '{assigned}'", "-5"
    ),
    Corruption("V10", "another network fee", "UPDATE withdrawals SET network_fee_nano = 8 WHERE id = '{paid}'", "-3"),
    Corruption("V10", "a payout forgotten", "UPDATE withdrawals SET state = 'failed' WHERE id = '{paid}'", "-3"),
    Corruption(
        "V10",
        "a payout that is not on the chain",
        "UPDATE withdrawals SET tx_hash = NULL WHERE id = '{paid}'",
        "withdrawal {paid}",
    ),
    Corruption("V11", "a deal's fee not collected", "UPDATE deals SET fee_nano = 0 WHERE id = '{deal}'", "-1"),
    Corruption("V11", "a payout's fee", "UPDATE withdrawals SET fee_nano = 0 WHERE id = '{paid}'", "-1"),
    Corruption("V11", "a return's fee", "UPDATE returns SET fee_nano = 0 WHERE id = '{returned}'", "-1"),
    Corruption("V11", "a presale's penalty", "UPDATE presales SET penalty_bp = 0 WHERE id = '{failed}'", "-1"),
]

_CHECKED_ITEMS = [
    Corruption(
        "V12",
        "a deposit twice",
        "INSERT INTO deposits SELECT * FROM deposits WHERE logical_time = 77",
        f"deposit {77:064x}",
    ),
    Corruption(
        "V12",
        "an intake twice",
        "INSERT INTO intakes SELECT * FROM intakes WHERE nft_id = {held}",
        "intake message-{held}",
    ),
    Corruption("V12", "a gift in custody twice", "UPDATE nfts SET gift_id = {sold} WHERE id = {held}", "gift {sold}"),
    Corruption("V13", "listed without a price", "UPDATE nfts SET price_nano = NULL WHERE id = {listed}", "{listed}"),
    Corruption("V13", "listed without a rate", "UPDATE nfts SET fee_bp = NULL WHERE id = {listed}", "{listed}"),
    Corruption(
        "V13", "priced and not listed", "UPDATE nfts SET price_nano = 1, fee_bp = 1 WHERE id = {held}", "{held}"
    ),
    Corruption("V13", "owned by nobody", "UPDATE nfts SET owner_id = NULL WHERE id = {held}", "{held}"),
    Corruption("V13", "external and owned", "UPDATE nfts SET owner_id = 1 WHERE id = {external}", "{external}"),
    Corruption("V13", "reserved by nothing", "UPDATE nfts SET state = 'in_bundle' WHERE id = {held}", "{held}"),
    Corruption("V13", "free and reserved", "UPDATE nfts SET state = 'held' WHERE id = {auctioned}", "{auctioned}"),
    Corruption(
        "V14",
        "reserved by no auction",
        f"UPDATE nfts SET reserved_by = '{ELSEWHERE}' WHERE id = {{auctioned}}",
        "{auctioned}",
    ),
    Corruption(
        "V14", "an auction without its item", "UPDATE nfts SET state = 'held' WHERE id = {auctioned}", "{auction}"
    ),
    Corruption(
        "V14", "another's auction", "UPDATE auctions SET seller_id = {bob} WHERE id = '{auction}'", "{auctioned}"
    ),
    Corruption(
        "V14",
        "two auctions",
        "UPDATE auctions SET nft_id = {auctioned}, state = 'active' WHERE id = '{won_auction}'",
        "{auctioned}",
    ),
    Corruption(
        "V16", "reserved by no return", "UPDATE returns SET state = 'failed' WHERE id = '{return}'", "{returning}"
    ),
    Corruption("V16", "a return without its item", "UPDATE nfts SET state = 'held' WHERE id = {returning}", "{return}"),
    Corruption("V16", "another's return", "UPDATE returns SET user_id = {bob} WHERE id = '{return}'", "{return}"),
    Corruption(
        "V17", "an offer on a reserved item", "UPDATE nfts SET state = 'on_auction' WHERE id = {offered}", "{offer}"
    ),
    Corruption("V17", "an offer to oneself", "UPDATE nfts SET owner_id = {bob} WHERE id = {offered}", "{offer}"),
    Corruption("V17", "an offer to another", "UPDATE offers SET owner_id = {carol} WHERE id = '{offer}'", "{offer}"),
    Corruption("V17", "an offer on nothing", "DELETE FROM nfts WHERE id = {offered}", "{offer}"),
    Corruption(
        "V17",
        "two offers of one",
        "UPDATE offers SET nft_id = {offered}, state = 'open' WHERE id = '{accepted}'",
        "{offer}",
    ),
    Corruption(
        "V18",
        "another's item in a trade",
        "UPDATE nfts SET owner_id = {bob} WHERE id = {traded}",
        "{trade} {traded}",
    ),
    Corruption(
        "V18",
        "a reserved item in a proposal",
        "UPDATE nfts SET state = 'on_auction' WHERE id = {given}",
        "{proposal} {given}",
    ),
    Corruption(
        "V18", "a proposal to a closed trade", "UPDATE trades SET state = 'closed' WHERE id = '{trade}'", "{proposal}"
    ),
    Corruption("V18", "a trade of nothing", "DELETE FROM trade_items WHERE trade_id = '{trade}'", "{trade}"),
    Corruption(
        "V18",
        "an item of a trade that is over",
        "UPDATE trade_items SET closed_at = NULL WHERE trade_id = '{swapped_trade}'",
        "{swapped_trade} {swapped}",
    ),
    Corruption("V27", "an owner by no path", "UPDATE nfts SET owner_id = {carol} WHERE id = {held}", "{held}"),
    Corruption(
        "V27", "sold by who did not own it", "UPDATE deals SET seller_id = {carol} WHERE id = '{deal}'", "{sold}"
    ),
    Corruption(
        "V27",
        "sold twice by one owner",
        "INSERT INTO deal_items SELECT deal_id, {given}, {given}, 1, 'to_buyer' FROM deal_items WHERE nft_id = {sold}",
        "{given}",
    ),
    Corruption("V27", "a transfer lost", "UPDATE commands SET status = 'rejected' WHERE id = '{transfer}'", "{given}"),
    Corruption("V27", "an intake lost", "DELETE FROM intakes WHERE nft_id = {held}", "{held}"),
    Corruption("V27", "an item lost", "DELETE FROM nfts WHERE id = {held}", "{held}"),
    Corruption(
        "V27",
        "returned and still here",
        "UPDATE nfts SET state = 'held', owner_id = {alice} WHERE id = {external}",
        "{external}",
    ),
    Corruption(
        "V27",
        "half of a swap",
        "DELETE FROM deal_items WHERE direction = 'to_seller'",
        "50",
    ),
    Corruption(
        "V27",
        "a delivery to another",
        "UPDATE nfts SET owner_id = {alice} WHERE id = {delivered_item}",
        "{delivered_item}",
    ),
]

_CHECKED_DOCUMENTS = [
    Corruption(
        "V19",
        "no leader of all who bid",
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
    Corruption(
        "V22", "a purchase of nothing", "UPDATE channels SET state = 'listed' WHERE id = {selling}", "{purchase}"
    ),
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
        "a timer for another moment",
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

CORRUPTIONS = [*_CHECKED_MONEY, *_CHECKED_ITEMS, *_CHECKED_DOCUMENTS]
