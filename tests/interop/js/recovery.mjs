// Opens a recovery file and locks the same key with another passphrase: `node recovery.mjs <hex> <passphrase> <another>`.
import { Keypair } from "@synonymdev/pubky";

const [file, passphrase, another] = process.argv.slice(2);
const keypair = Keypair.fromRecoveryFile(Buffer.from(file, "hex"), passphrase);
process.stdout.write(Buffer.from(keypair.createRecoveryFile(another)).toString("hex"));
